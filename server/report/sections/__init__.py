"""The report's sections: each module turns one part of a run into blocks."""
