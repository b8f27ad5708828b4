"""One patient's prediction and explanation, for the clinician who treats them."""
