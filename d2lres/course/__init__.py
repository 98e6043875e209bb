"""What is of this course alone: sizes, recipes, experiments, lessons and their exercises,
copies, drawings, doctor.
"""
