//! What no single crate can show, in one binary: one link, and one place to look.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod archives;
mod check;
mod cli_manners;
mod crash;
mod early_end;
mod encoder_rules;
mod extraction;
mod fuzz;
mod golden;
mod index_tables;
mod keyed_cuts;
mod link_pieces;
mod lookup;
mod mounted;
mod pages;
mod repositories;
mod repository_damage;
mod repository_faults;
mod repository_verbs;
mod restore;
mod reuse;
mod served;
mod server;
mod server_hostile;
mod server_running;
mod spec;
mod stability;
mod support;
mod tidy;
mod vectors;

/// Counts, so that a reader which takes more memory than its bytes warrant is seen.
#[global_allocator]
static COUNTING: diptych_tests::heap::Counting = diptych_tests::heap::Counting;
