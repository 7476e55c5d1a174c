"""What leaves the house: documents, the document store, alerts."""
