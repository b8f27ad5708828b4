"""The look that the report, the dashboard and the patient's page share: theme, figures, tables, words, escaping.

Pages are self-contained: they open offline, ask nothing of any network, and run only the scripts whose hashes their
content security policy names. What comes from a study (names of hospitals and features, reasons) is text, never markup.
"""
