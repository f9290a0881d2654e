//! L3: registration.
