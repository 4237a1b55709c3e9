//! The relay against a scripted server, over pipes and with paused time.

mod bench;
mod life;
mod pairs;
mod traffic;
