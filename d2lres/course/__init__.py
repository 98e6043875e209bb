"""What is of this course alone: sizes, recipes, recorded experiments, lessons, drawings, doctor."""
