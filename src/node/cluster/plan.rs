//! From the document and what the groups look like to the next steps.
