//! Batches of which all or none is executed.

use passbook_event_store::Position;

use super::{
    account, account_receipt, batch, code, deposit,
    ledger::{Ledger, atomic, single, written},
    open, receipt, refused, three_accounts, transfer, withdraw,
};
use crate::command::Refusal;

#[test]
fn batch_has_the_receipt_of_each_command_in_order() {
    for partitions in [1, 4] {
        let mut ledger = three_accounts(partitions);
        let commands = vec![deposit(1, 5), withdraw(2, 1), transfer(1, 3, 105), deposit(1, 2)];
        let decided = ledger.execute(vec![atomic(commands, None)]);
        let batch = batch(&decided.results[0]);
        assert_eq!(batch.results.len(), 4);
        assert_eq!(account_receipt(&batch.results[0]).balance, 105);
        assert_eq!(account_receipt(&batch.results[1]).balance, 99);
        assert_eq!(account_receipt(&batch.results[3]).balance, 2, "it sees the transfer before it");
        let merged = batch.results.iter().map(crate::Receipt::position).reduce(Position::merge);
        assert_eq!(Some(&batch.position), merged.as_ref());
        assert_eq!([1, 2, 3].map(|number| ledger.balance(account(number))), [2, 99, 205]);
    }
}

#[test]
fn batch_sees_accounts_that_it_opens_and_drops_them_if_it_fails() {
    let mut ledger = Ledger::new(4);
    let opened = ledger.execute(vec![atomic(vec![open(1, 10), open(2, 0), transfer(1, 2, 10)], None)]);
    assert!(opened.results[0].is_ok(), "{:?}", opened.results);
    let failed = ledger.execute(vec![
        atomic(vec![open(3, 10), deposit(3, 5), withdraw(1, 1)], None),
        single(deposit(3, 1)),
        single(open(3, 7)),
    ]);
    assert_eq!(
        (refused(&failed.results[0]).index, code(refused(&failed.results[0])).as_str()),
        (Some(2), "insufficient_funds")
    );
    assert_eq!(code(refused(&failed.results[1])), "account_not_found");
    assert_eq!((receipt(&failed.results[2]).balance, ledger.balance(account(3))), (7, 7));
}

#[test]
fn failed_batch_leaves_no_trace_at_every_place_of_the_failure() {
    let ledger = three_accounts(4);
    let before = || single(deposit(1, 1));
    let after = || [single(withdraw(1, 101)), single(withdraw(1, 1)), single(transfer(2, 3, 100))];
    let without = ledger.decide([before()].into_iter().chain(after()).collect());
    for place in 0..4 {
        let mut commands = vec![deposit(1, 1_000), transfer(3, 2, 50), withdraw(2, 1)];
        commands.insert(place, withdraw(3, 1_000_000));
        let with = ledger.decide([before(), atomic(commands, None)].into_iter().chain(after()).collect());
        assert_eq!(written(&with), written(&without));
        assert_eq!(refused(&with.results[1]).index, Some(place));
    }
}

#[test]
fn thousandth_command_that_fails_undoes_all_others() {
    let mut ledger = three_accounts(1);
    let events = ledger.events();
    let mut commands = vec![deposit(1, 1); 999];
    commands.push(withdraw(1, 1_100));
    let decided = ledger.execute(vec![atomic(commands.clone(), None)]);
    assert_eq!((refused(&decided.results[0]).index, ledger.events()), (Some(999), events));
    commands[999] = withdraw(1, 1_099);
    let decided = ledger.execute(vec![atomic(commands, None)]);
    assert_eq!((batch(&decided.results[0]).results.len(), ledger.balance(account(1))), (1_000, 0));
}

#[test]
fn refusal_after_a_rollback_has_the_position_before_the_batch() {
    let ledger = three_accounts(1);
    let decided = ledger.decide(vec![
        single(deposit(1, 1)),
        atomic(vec![deposit(1, 1), deposit(2, 1), withdraw(1, 1_000)], None),
        single(withdraw(2, 1_000)),
        single(deposit(2, 1)),
    ]);
    let positions = [1, 2].map(|number| refused(&decided.results[number]).position.clone());
    assert_eq!(positions, [Position::Single(4), Position::Single(4)]);
    assert_eq!(receipt(&decided.results[3]).position, Position::Single(5));
}

#[test]
fn refusal_has_the_positions_of_all_commands_up_to_it() {
    let ledger = three_accounts(64);
    let decided = ledger.decide(vec![atomic(vec![deposit(1, 1), withdraw(2, 1_000), deposit(3, 1)], None)]);
    let refused = refused(&decided.results[0]);
    let of = |number| ledger.partitions.partition_of(account(number));
    assert_eq!([1, 2, 3].map(|number| refused.position.in_partition(of(number))), [1, 1, 0]);
    assert_eq!((refused.account_id, refused.index), (Some(account(2)), Some(1)));
}

#[test]
fn caller_who_may_not_see_an_account_gets_not_found_with_the_index() {
    let mut ledger = three_accounts(1);
    let mut stranger = super::ledger::context();
    stranger.caller = "bob".into();
    stranger.access = crate::AccountAccess::Own;
    let mut work = atomic(vec![deposit(1, 1), deposit(2, 1)], None);
    if let crate::pending::Work::Atomic(batch, _) = &mut work {
        batch.commands[1].context = stranger;
    }
    let decided = ledger.execute(vec![work]);
    let refused = refused(&decided.results[0]);
    assert_eq!((refused.reason, refused.index), (Refusal::NotVisible, Some(1)));
    assert_eq!(ledger.balance(account(1)), 100);
}
