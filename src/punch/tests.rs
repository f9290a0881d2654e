//! Whole searches in virtual time.
