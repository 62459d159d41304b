//! The suite that every store passes: one function per promise of [`Store`].
//!
//! A backend's test file names a function that makes an empty store, and gets one test per promise:
//!
//! ```text
//! async fn make() -> (Guard, Arc<dyn Store>) { … }
//! wasmhook_store::conformance_tests!(make);
//! ```
//!
//! The guard is dropped after the test; it may hold a server or a folder. The functions panic when a
//! promise is broken. They wait for real time, but no assertion depends on the machine's speed.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a broken promise is a panic here"
)]

mod enqueueing;
mod leases;
mod limits;
mod new_work;
mod reading;
mod replay;
mod retention;
mod sequences;
mod steps;
mod turns;
mod waiting;

use std::sync::Arc;

pub use enqueueing::*;
pub use leases::*;
pub use limits::*;
pub use new_work::*;
pub use reading::*;
pub use replay::*;
pub use retention::*;
pub use sequences::*;
pub use steps::{dead, event, large_event, succeeded, to};
pub use turns::*;
pub use waiting::*;

use crate::Store;

/// Makes one test per promise for the store that `$make` makes: an `async fn` that returns a guard
/// and an `Arc<dyn Store>` on an empty store.
#[macro_export]
macro_rules! conformance_tests {
    ($make:path) => {
        $crate::conformance_tests! { @each $make;
            enqueue_is_idempotent
            enqueue_answers_in_order
            an_event_is_extended
            large_events_are_enqueued_once
            an_event_without_deliveries_is_harmless
            all_deliveries_of_an_event_appear_together
            a_lease_returns_the_event_byte_for_byte
            nothing_is_leased_twice_at_once
            concurrent_workers_share_without_overlap
            a_lost_lease_cannot_record
            a_second_record_is_refused
            a_released_lease_cannot_record
            a_lost_lease_cannot_release
            an_expired_lease_goes_back_where_it_was
            a_failed_delivery_waits_for_its_time
            a_scheduled_event_waits_for_its_time
            a_time_that_is_past_is_now
            a_scheduled_event_wakes_who_waits
            a_failed_delivery_can_wait_longer_with_its_last_attempt
            an_attempt_need_not_use_up_a_retry
            next_due_is_reported
            a_dead_letter_stays
            a_dead_letter_is_replayed
            a_succeeded_delivery_is_replayed
            replay_keeps_to_its_tenant_and_to_finished_deliveries
            attempts_are_kept_in_order_with_every_field
            the_state_is_visible_all_along
            lists_page_to_the_end_newest_first
            lists_filter_by_state
            paging_survives_changes
            tenants_are_isolated
            tenants_take_turns
            a_late_tenant_is_served_at_once
            who_holds_most_places_waits_for_the_others
            who_lacks_places_does_not_keep_the_turn_for_ever
            endpoints_take_turns
            an_endpoint_has_a_limit_in_flight
            an_endpoint_that_stalls_has_few_in_flight_until_it_answers
            who_fails_at_once_is_not_held_back
            a_tenant_has_a_limit_in_flight
            a_new_limit_counts_what_is_in_flight
            a_raised_limit_wakes_who_waits
            rejected_events_are_kept_newest_first
            retention_by_age
            retention_by_count
            retention_reaches_every_tenant
            retention_spares_what_was_replayed
            the_backlog_is_counted
            known_events_are_known
            work_wakes_who_waits
            waiting_ends_by_itself
            new_work_is_leased_apart
            new_work_is_for_who_has_little_in_flight
            waiting_for_new_work_ends
            large_batches_pass
            the_store_is_alive
            a_sequence_goes_one_after_the_other
            a_batch_is_in_order
            a_turn_outlasts_failures_and_lost_leases
            a_dead_letter_lets_the_next_go
            a_blocking_dead_letter_is_waited_for
            a_blocking_dead_letter_is_skipped_by_hand
            a_replayed_delivery_takes_its_old_place
            a_scheduled_delivery_keeps_its_turn
            the_end_of_one_wakes_who_waits
            sequences_are_in_order_whoever_works
        }
    };
    (@each $make:path; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (guard, store) = $make().await;
                $crate::conformance::$name(store).await;
                drop(guard);
            }
        )*
    };
}

/// Makes one test per promise about turns, for a store of one shard: between shards what is asked for is
/// parted evenly.
#[macro_export]
macro_rules! turn_tests {
    ($make:path) => {
        $crate::conformance_tests! { @each $make;
            few_places_are_shared_in_turn
            weighty_tenants_get_more_turns
        }
    };
}

/// The store under test.
pub type Subject = Arc<dyn Store>;
