"""The rules by which a survey is operated: what triggers what, with which priority, deadline and retry."""
