//! Idempotency keys: a promise kept within a batch as well as between batches.

use super::*;

fn replayed(result: Result<Receipt, Refusal>) -> Answer {
    Answer { result, replayed: true }
}

/// What `commands` are answered as one batch, having made sure that it makes no difference
/// to have them one at a time.
fn answers(books: &mut Books, commands: &[Command]) -> Vec<Answer> {
    let mut one_by_one = books.clone();
    let apart: Vec<Answer> = commands
        .iter()
        .flat_map(|command| one_by_one.carry_out(std::slice::from_ref(command)))
        .collect();
    assert_eq!(books.carry_out(commands), apart);
    assert_eq!(*books, one_by_one);
    apart
}

#[test]
fn the_same_request_under_the_same_key_is_carried_out_once() {
    let mut books = Books::of([("alice", 100), ("bob", 0)]);
    let purchase = buys(ALICE, "cup").once("a", 1);
    let transfer = sends(ALICE, "bob", 5).once("b", 2);
    let commands =
        [purchase.clone(), transfer.clone(), purchase.clone(), transfer.clone(), purchase];
    let again = |number| replayed(Ok(Receipt::Done(Some(LogNumber(number)))));
    let expected = [done(1), done(2), again(1), again(2), again(1)];
    assert_eq!(answers(&mut books, &commands), expected);
    assert_eq!((books.holds(ALICE), books.holds(BOB)), (75, 5));
    assert_eq!(books.history.len(), 2);
}

#[test]
fn another_request_under_a_used_key_is_refused_and_does_not_take_the_key_over() {
    let mut books = Books::of([("alice", 100)]);
    let first = buys(ALICE, "cup").once("a", 1);
    let commands = [
        first.clone(),
        buys(ALICE, "pen").once("a", 2),
        is_refused(ALICE, Refusal::Malformed).once("a", 3),
        first,
    ];
    let reused = refused(Refusal::KeyReused);
    let again = replayed(Ok(Receipt::Done(Some(LogNumber(1)))));
    assert_eq!(answers(&mut books, &commands), [done(1), reused, reused, again]);
    assert_eq!(books.holds(ALICE), 80);
    assert_eq!(books.keys.len(), 1);
}

#[test]
fn a_key_belongs_to_whoever_used_it() {
    let mut books = Books::of([("alice", 100), ("bob", 100)]);
    let commands = [
        buys(ALICE, "cup").once("a", 1),
        buys(BOB, "cup").once("a", 1),
        buys(BOB, "pen").once("a", 2),
    ];
    let reused = refused(Refusal::KeyReused);
    assert_eq!(answers(&mut books, &commands), [done(1), done(2), reused]);
    assert_eq!((books.holds(ALICE), books.holds(BOB)), (80, 80));
}

#[test]
fn a_refusal_is_remembered_even_when_its_reason_has_gone() {
    for (what, command) in [
        ("too few coins", buys(BOB, "cup").once("a", 1)),
        ("no recipient", sends(BOB, "newcomer", 1).once("a", 1)),
        ("malformed", is_refused(BOB, Refusal::Malformed).once("a", 1)),
        ("amount zero", is_refused(BOB, Refusal::AmountNotPositive).once("a", 1)),
        ("no such item", buys(BOB, "yacht").once("a", 1)),
        ("to oneself", sends(BOB, "bob", 1).once("a", 1)),
    ] {
        let mut books = Books::of([("alice", 100), ("bob", 0)]);
        let commands =
            [command.clone(), sends(ALICE, "bob", 100), opens("newcomer"), command.clone()];
        let answers = answers(&mut books, &commands);
        assert!(answers[0].result.is_err() && !answers[0].replayed, "{what}: {answers:?}");
        assert_eq!(answers[3], replayed(answers[0].result), "{what}");
        assert_eq!(books.holds(BOB), 100, "{what}");
    }
}

#[test]
fn a_full_recipient_is_remembered_as_full() {
    let mut books = Books::of([("alice", 1), ("bob", i64::MAX)]);
    let command = sends(ALICE, "bob", 1).once("a", 1);
    let commands = [command.clone(), buys(BOB, "pen"), command];
    let full = Err(Refusal::RecipientFull);
    let expected = [refused(Refusal::RecipientFull), done(1), replayed(full)];
    assert_eq!(answers(&mut books, &commands), expected);
}

#[test]
fn a_stranger_has_no_keys_to_be_remembered_by() {
    let mut books = Books::of([("alice", 1)]);
    let command = buys(STRANGER, "pen").once("a", 1);
    let unknown = refused(Refusal::UnknownAccount);
    assert_eq!(answers(&mut books, &[command.clone(), command]), [unknown, unknown]);
    assert!(books.keys.is_empty());
}

#[test]
fn a_key_alone_is_something_to_write() {
    let books = Books::of([("alice", 0)]);
    let commands = [buys(ALICE, "pen").once("a", 7)];
    let (_, changes) = execute(books.ledger_for(&commands), &commands);
    assert!(!changes.is_empty());
    assert!(changes.balances.is_empty() && changes.entries.is_empty());
    let [(account, key, remembered)] = changes.remembered.as_slice() else { panic!("{changes:?}") };
    assert_eq!((*account, key.as_str()), (ALICE, "a"));
    assert_eq!(remembered.fingerprint, Fingerprint([7; 32]));
    assert_eq!(remembered.outcome, Err(Refusal::InsufficientCoins));
}
