"""One patient's explanation as a page for the clinician who treats them. It is made at the hospital and stays there.

Every number comes from `explain_patient`, as in the JSON file; the pictures are the ones that the model saw.
"""
