//! Properties of random batches.

use passbook_domain::{AccountCommand, Command, command::PlaceHold, limits::Limits};
use proptest::{collection::vec, option, prelude::*};
use uuid::Uuid;

use super::{
    account, batch, deposit,
    ledger::{Ledger, atomic, dry_run, results_text, single, without_event_ids, written},
    movement, open, refused, reversal, transfer_under, withdraw,
};
use crate::{
    pending::CommandResult,
    receipt::{AccountReceipt, Counterparty, Receipt},
};

/// What a command does, with the numbers of its accounts.
#[derive(Clone, Debug)]
enum Step {
    Open(u128, i64),
    Deposit(u128, i64),
    Withdraw(u128, i64),
    Transfer(u128, u128, i64, u128),
    Hold(u128, i64, u128),
    Reverse(u128, i64, Option<i64>),
    Overdraft(u128, i64),
    Status(u128, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let number = || 1..5_u128;
    let amount = || 1..120_i64;
    // Every transfer and hold has an id of its own.
    let unique = || any::<u128>().no_shrink();
    prop_oneof![
        2 => (number(), 0..200_i64).prop_map(|(number, amount)| Step::Open(number, amount)),
        4 => (number(), amount()).prop_map(|(number, amount)| Step::Deposit(number, amount)),
        4 => (number(), amount()).prop_map(|(number, amount)| Step::Withdraw(number, amount)),
        5 => (number(), 1..4_u128, amount(), unique()).prop_map(|(from, shift, amount, unique)| {
            Step::Transfer(from, (from + shift - 1) % 4 + 1, amount, unique)
        }),
        1 => (number(), amount(), unique()).prop_map(|(number, amount, unique)| Step::Hold(number, amount, unique)),
        5 => (number(), 1..12_i64, option::of(amount())).prop_map(|(number, version, amount)| {
            Step::Reverse(number, version, amount)
        }),
        1 => (number(), 0..100_i64).prop_map(|(number, overdraft)| Step::Overdraft(number, overdraft)),
        1 => (number(), 0..3_u8).prop_map(|(number, status)| Step::Status(number, status)),
    ]
}

fn steps(max: usize) -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..max)
}

/// The command of a step. The movement of a reversal is looked up in the log.
fn command(ledger: &Ledger, step: &Step) -> Command {
    let on = |number: u128, command| Command::Account { account_id: account(number), command };
    match *step {
        Step::Open(number, amount) => open(number, amount),
        Step::Deposit(number, amount) => deposit(number, amount),
        Step::Withdraw(number, amount) => withdraw(number, amount),
        Step::Transfer(from, to, amount, unique) => transfer_under(Uuid::from_u128(unique), from, to, amount),
        Step::Hold(number, amount, unique) => {
            let (unique, movement) = (Uuid::from_u128(unique), movement(amount));
            on(number, AccountCommand::PlaceHold(PlaceHold { unique, movement, expires_in_seconds: 60 }))
        }
        Step::Reverse(number, version, amount) => ledger.reversal(reversal(number, version, amount)),
        Step::Overdraft(number, overdraft) => {
            on(number, AccountCommand::SetLimits(Limits { overdraft, ..Limits::default() }))
        }
        Step::Status(number, 0) => on(number, AccountCommand::Freeze { reason: None }),
        Step::Status(number, 1) => on(number, AccountCommand::Unfreeze { reason: None }),
        Step::Status(number, _) => on(number, AccountCommand::Close { reason: None }),
    }
}

fn commands(ledger: &Ledger, steps: &[Step]) -> Vec<Command> {
    steps.iter().map(|step| command(ledger, step)).collect()
}

/// A log after steps, each in a batch of its own.
fn after(partitions: i16, steps: &[Step]) -> Ledger {
    let mut ledger = Ledger::new(partitions);
    ledger.execute((1..4).map(|number| single(open(number, 100))).collect());
    for step in steps {
        let command = command(&ledger, step);
        ledger.execute(vec![single(command)]);
    }
    ledger
}

/// The state that a receipt shows of each account: number, version, balance and available money.
fn states(receipt: &Receipt) -> Vec<(Uuid, i64, i64, Option<i64>)> {
    let state = |account: &AccountReceipt| (account.account_id, account.version, account.balance, account.available);
    match receipt {
        Receipt::Account(account) => vec![state(account)],
        Receipt::Transfer(transfer) => match &transfer.to {
            Counterparty::Visible(to) => vec![state(&transfer.from), state(to)],
            Counterparty::Hidden(_) => vec![state(&transfer.from)],
        },
        Receipt::Batch(batch) => batch.results.iter().flat_map(states).collect(),
    }
}

/// The states that a command leaves, or the reason and the account of its refusal.
fn outcome(result: &CommandResult) -> String {
    match result {
        Ok(outcome) => format!("{:?}", states(&outcome.receipt)),
        Err(_) => format!("{:?}", (refused(result).reason, refused(result).account_id)),
    }
}

proptest! {
    /// Also if reversals count its movements: no event, count of a reversal, key, snapshot or state of it stays.
    #[test]
    fn failed_batch_changes_nothing_for_the_commands_around_it(
        partitions in 1..5_i16, history in steps(20), before in steps(4), inside in steps(10), at in 0..10_usize, later in steps(6)
    ) {
        let ledger = after(partitions, &history);
        let around = |steps: &[Step]| commands(&ledger, steps).into_iter().map(single).collect::<Vec<_>>();
        let mut inside = commands(&ledger, &inside);
        inside.insert(at.min(inside.len()), withdraw(1, 1_000_000_000));
        let length = inside.len();
        let without = ledger.decide(around(&before).into_iter().chain(around(&later)).collect());
        let batch = atomic(inside, None);
        let mut with = ledger.decide(around(&before).into_iter().chain([batch]).chain(around(&later)).collect());
        prop_assert_eq!(written(&with), written(&without));
        let failed = with.results.remove(before.len());
        prop_assert!(refused(&failed).index.is_some_and(|index| index <= at && index < length), "{:?}", failed);
        prop_assert_eq!(results_text(&with.results, &with), results_text(&without.results, &without));
    }

    #[test]
    fn batch_equals_its_commands_sent_singly(
        partitions in 1..5_i16, history in steps(20), inside in steps(16), later in steps(4)
    ) {
        let ledger = after(partitions, &history);
        // What succeeds singly: the commands that fail leave no trace, so the others succeed without them.
        let inside = commands(&ledger, &inside);
        let tried = ledger.decide(inside.iter().cloned().map(single).collect());
        let succeeds = inside.into_iter().zip(&tried.results).filter(|(_, result)| result.is_ok());
        let inside: Vec<Command> = succeeds.map(|(command, _)| command).collect();
        prop_assume!(!inside.is_empty());
        let later = || commands(&ledger, &later).into_iter().map(single);
        let singly = ledger.decide(inside.iter().cloned().map(single).chain(later()).collect());
        let whole = ledger.decide([atomic(inside.clone(), None)].into_iter().chain(later()).collect());
        prop_assert_eq!(written(&whole), written(&singly));
        let receipts = singly.results[..inside.len()].iter().map(|result| result.as_ref().map(|outcome| &outcome.receipt));
        let receipts: Vec<&Receipt> = receipts.collect::<Result<_, _>>().expect("all succeed");
        let of_batch: Vec<&Receipt> = batch(&whole.results[0]).results.iter().collect();
        prop_assert_eq!(
            without_event_ids(format!("{of_batch:#?}"), &whole),
            without_event_ids(format!("{receipts:#?}"), &singly)
        );
        prop_assert_eq!(
            results_text(&whole.results[1..], &whole),
            results_text(&singly.results[inside.len()..], &singly)
        );
    }

    /// The batch is refused as its first command that fails singly would be.
    #[test]
    fn batch_fails_like_its_first_command_that_fails_singly(
        partitions in 1..5_i16, history in steps(20), inside in steps(16)
    ) {
        let mut ledger = after(partitions, &history);
        let inside = commands(&ledger, &inside);
        let singly = ledger.decide(inside.iter().cloned().map(single).collect());
        let failed = singly.results.iter().position(Result::is_err);
        let events = ledger.events();
        let whole = ledger.execute(vec![atomic(inside, None)]);
        match failed {
            Some(index) => {
                prop_assert_eq!(refused(&whole.results[0]).index, Some(index));
                prop_assert_eq!(outcome(&whole.results[0]), outcome(&singly.results[index]));
                prop_assert_eq!(ledger.events(), events);
            }
            None => prop_assert!(whole.results[0].is_ok()),
        }
    }

    #[test]
    fn dry_run_shows_what_the_commands_would_do_and_leaves_nothing(
        partitions in 1..5_i16, history in steps(20), inside in steps(16), later in steps(6)
    ) {
        let ledger = after(partitions, &history);
        let inside = commands(&ledger, &inside);
        let later = || commands(&ledger, &later).into_iter().map(single).collect::<Vec<_>>();
        let dry = ledger.decide([dry_run(inside.clone())].into_iter().chain(later()).collect());
        let without = ledger.decide(later());
        prop_assert_eq!(written(&dry), written(&without));
        let real = ledger.decide(inside.iter().cloned().map(single).collect());
        for (dry, real) in dry.results.iter().zip(&real.results) {
            prop_assert_eq!(outcome(dry), outcome(real));
        }
        let after = &dry.results[inside.len()..];
        prop_assert_eq!(results_text(after, &dry), results_text(&without.results, &without));
    }

    /// Batches of random work over the same accounts: what the ledger folds from the log is what the decisions say.
    #[test]
    fn random_batches_fold_to_the_states_that_they_leave(
        partitions in 1..5_i16, batches in vec(vec((steps(6), 0..3_u8), 1..5), 1..8)
    ) {
        let mut ledger = after(partitions, &[]);
        for work in batches {
            let work = work.iter().flat_map(|(steps, kind)| {
                let commands = commands(&ledger, steps);
                match kind {
                    0 => vec![atomic(commands, None)],
                    1 => vec![dry_run(commands)],
                    _ => commands.into_iter().map(single).collect(),
                }
            });
            let work = work.collect();
            ledger.execute(work);
        }
    }
}
