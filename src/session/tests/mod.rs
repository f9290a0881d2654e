//! Two sessions, a link and a virtual clock.

mod attacks;
mod life;
mod pair;
