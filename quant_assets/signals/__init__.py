"""From features to tonight's signals: splits, models, evaluation, tracking, scoring."""
