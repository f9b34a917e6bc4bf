"""Named metrics of the survey, in the manner of Rubin's verification metrics: what they are and what they measured."""
