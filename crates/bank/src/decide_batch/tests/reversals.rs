//! Reversals of movements that the same batch records, which no look-up finds in the log.

use uuid::Uuid;

use super::{
    account, account_receipt, batch, code, deposit,
    ledger::{Ledger, atomic, context, dry_run, key, single},
    refused, reversal, three_accounts, transfer, withdraw,
};
use crate::{
    AccountAccess,
    pending::{CommandResult, Work},
    receipt::{Counterparty, Receipt, TransferReceipt},
};

/// The receipt of a reversal of a transfer.
fn reversed_transfer(receipt: &Receipt) -> &TransferReceipt {
    let Receipt::Transfer(transfer) = receipt else { panic!("no transfer: {receipt:?}") };
    assert!(transfer.is_reversal(), "{transfer:?}");
    transfer
}

fn assert_refused(result: &CommandResult, index: usize, expected: &str) {
    let refused = refused(result);
    assert_eq!((refused.index, code(refused).as_str()), (Some(index), expected));
}

/// Executes the commands, and then the reversals, as one batch of which all or none is executed.
fn execute(
    ledger: &mut Ledger,
    commands: Vec<passbook_domain::Command>,
    reversals: &[(u128, i64, Option<i64>)],
) -> CommandResult {
    let reversals =
        reversals.iter().map(|(number, version, amount)| ledger.reversal(reversal(*number, *version, *amount)));
    let commands = commands.into_iter().chain(reversals).collect();
    ledger.execute(vec![atomic(commands, None)]).results.remove(0)
}

#[test]
fn deposit_of_the_same_batch_is_reversed_in_parts() {
    let mut ledger = three_accounts(1);
    let result = execute(&mut ledger, vec![deposit(1, 50)], &[(1, 2, Some(20)), (1, 2, None)]);
    let receipts = &batch(&result).results;
    assert_eq!([1, 2].map(|at| account_receipt(&receipts[at]).balance), [130, 100]);
    assert_eq!(ledger.balance(account(1)), 100);
    let again = ledger.reversal(reversal(1, 2, None));
    assert_eq!(code(refused(&ledger.execute(vec![single(again)]).results[0])), "already_reversed");
}

#[test]
fn batch_that_reverses_too_much_of_its_own_movement_is_refused() {
    let mut ledger = three_accounts(1);
    let events = ledger.events();
    for (reversals, index, expected) in [
        (vec![(1, 2, Some(20)), (1, 2, Some(31))], 2, "exceeds_reversible"),
        (vec![(1, 2, None), (1, 2, None)], 2, "already_reversed"),
        (vec![(1, 2, None), (1, 3, None)], 2, "not_reversible"),
        (vec![(1, 3, None)], 1, "transaction_not_found"),
    ] {
        assert_refused(&execute(&mut ledger, vec![deposit(1, 50)], &reversals), index, expected);
        assert_eq!(ledger.events(), events, "nothing stays of {reversals:?}");
    }
    let result = execute(&mut ledger, vec![deposit(1, 50)], &[(1, 2, Some(50))]);
    assert!(result.is_ok(), "the refused batches reversed nothing: {result:?}");
}

#[test]
fn transfer_of_the_same_batch_is_reversed_from_either_side() {
    for partitions in [1, 4, 64] {
        let mut ledger = three_accounts(partitions);
        let result =
            execute(&mut ledger, vec![transfer(1, 2, 60)], &[(1, 2, Some(10)), (2, 2, Some(20)), (1, 2, None)]);
        let receipts = &batch(&result).results;
        for (at, balance) in [(1, 150), (2, 130), (3, 100)] {
            let reversed = reversed_transfer(&receipts[at]);
            assert_eq!(
                (reversed.from.account_id, reversed.from.balance),
                (account(2), balance),
                "the payer comes first"
            );
        }
        assert_eq!([1, 2].map(|number| ledger.balance(account(number))), [100, 100]);
        for (number, version) in [(1, 2), (2, 2)] {
            let again = ledger.reversal(reversal(number, version, None));
            assert_eq!(code(refused(&ledger.execute(vec![single(again)]).results[0])), "already_reversed");
        }
    }
}

#[test]
fn movement_before_the_batch_is_reversed_with_the_sum_of_the_batch() {
    let mut ledger = three_accounts(4);
    ledger.execute(vec![single(deposit(1, 50)), single(transfer(1, 2, 40))]);
    let result =
        execute(&mut ledger, vec![deposit(3, 1)], &[(1, 2, Some(30)), (1, 3, Some(25)), (2, 2, None), (1, 2, None)]);
    assert!(result.is_ok(), "{result:?}");
    assert_eq!([1, 2].map(|number| ledger.balance(account(number))), [100, 100]);
}

#[test]
fn refusal_names_the_account_that_pays_back_and_is_replayed_so() {
    let mut ledger = three_accounts(4);
    let work = |ledger: &Ledger| {
        let commands = vec![transfer(1, 2, 60), withdraw(2, 160), ledger.reversal(reversal(1, 2, None))];
        atomic(commands, Some(key("one", 1)))
    };
    for is_replay in [false, true] {
        let decided = ledger.execute(vec![work(&ledger)]);
        let refused = refused(&decided.results[0]);
        assert_eq!((code(refused).as_str(), refused.account_id), ("insufficient_funds", Some(account(2))));
        assert_eq!((refused.index, refused.replayed), (Some(2), is_replay));
    }
}

#[test]
fn receipt_hides_the_other_account_of_a_reversed_transfer() {
    let mut ledger = three_accounts(4);
    let reverse = ledger.reversal(reversal(2, 2, None));
    let mut work = atomic(vec![transfer(1, 2, 60), reverse], None);
    if let Work::Atomic(batch, _) = &mut work {
        for command in &mut batch.commands {
            command.context =
                crate::CommandContext { caller: "bob".into(), visibility: AccountAccess::Own, ..context() };
        }
    }
    let decided = ledger.execute(vec![work]);
    for receipt in &batch(&decided.results[0]).results {
        let Receipt::Transfer(transfer) = receipt else { panic!("{receipt:?}") };
        assert!(matches!(transfer.to, Counterparty::Hidden(_)), "{transfer:?}");
    }
}

#[test]
fn movement_of_another_command_in_the_executors_batch_is_found() {
    let mut ledger = three_accounts(1);
    let reverse = ledger.reversal(reversal(1, 2, None));
    let decided = ledger.execute(vec![single(deposit(1, 50)), single(reverse.clone()), atomic(vec![reverse], None)]);
    assert!(decided.results[1].is_ok(), "{:?}", decided.results);
    assert_refused(&decided.results[2], 0, "already_reversed");
    assert_eq!(ledger.balance(account(1)), 100);
}

#[test]
fn dry_run_reverses_the_movements_of_its_earlier_commands() {
    let ledger = three_accounts(4);
    let reverse = |number, version, amount| ledger.reversal(reversal(number, version, amount));
    let commands = vec![transfer(1, 2, 60), reverse(2, 2, Some(40)), reverse(1, 2, None), reverse(1, 2, None)];
    let decided = ledger.decide(vec![dry_run(commands)]);
    assert!(decided.results[..3].iter().all(Result::is_ok), "{:?}", decided.results);
    assert_eq!(code(refused(&decided.results[3])), "already_reversed");
    let receipt = &decided.results[2].as_ref().expect("a reversal").receipt;
    assert_eq!(reversed_transfer(receipt).from.balance, 100);
    assert_ne!(reversed_transfer(receipt).transfer_id, Uuid::nil());
}
