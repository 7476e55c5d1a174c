"""Why a model says what it says, on what evidence, in pictures, tables and a card."""
