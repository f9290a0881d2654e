//! Two sessions, a link and a virtual clock.

mod attacks;
mod chance;
mod life;
mod pair;
mod rekey;
