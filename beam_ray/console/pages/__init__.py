"""The pages, one module for each subject: each reads values and says what a page shows."""
