"""What is of this course alone: sizes, recipes, experiments, lessons, copies, drawings, doctor."""
