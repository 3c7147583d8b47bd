//! The law, rule by rule. `properties` holds what is true of any sequence of commands.

mod books;
mod keys;
mod properties;

use uuid::Uuid;

use super::*;
use books::{Books, number_of, owner_of};

const ALICE: AccountId = AccountId(1);
const BOB: AccountId = AccountId(2);
const STRANGER: AccountId = AccountId(99);

fn name(text: &str) -> Username {
    Username::parse(text).unwrap()
}

fn opens(username: &str) -> Command {
    Command::OpenAccount { username: name(username), password_hash: "hash".into() }
}

fn order(by: AccountId, action: Result<Action, Refusal>) -> Command {
    Command::Order(Order { by: owner_of(by), action, key: None })
}

fn sends(by: AccountId, to: &str, amount: i64) -> Command {
    let amount = Amount::new(amount).unwrap();
    order(by, Ok(Action::Transfer { to: name(to), amount }))
}

fn buys(by: AccountId, item: &str) -> Command {
    order(by, Ok(Action::Purchase { item: ItemName::parse(item).unwrap() }))
}

/// The order of a request that was refused before it got to the ledger.
fn is_refused(by: AccountId, refusal: Refusal) -> Command {
    order(by, Err(refusal))
}

impl Command {
    /// The same order under an idempotency key; `request` stands for what it asks for.
    fn once(self, key: &str, request: u8) -> Command {
        match self {
            Command::Order(order) => {
                let key = IdempotencyKey::parse(key.as_bytes()).unwrap();
                Command::Order(Order { key: Some((key, Fingerprint([request; 32]))), ..order })
            }
            opening => opening,
        }
    }
}

/// The answer to what became row `number` of the log.
fn done(number: i64) -> Answer {
    Answer { result: Ok(Receipt::Done(Some(LogNumber(number)))), replayed: false }
}

fn refused(refusal: Refusal) -> Answer {
    Answer { result: Err(refusal), replayed: false }
}

fn coins(number: i64) -> Coins {
    Coins::new(number).unwrap()
}

fn amount(number: i64) -> Amount {
    Amount::new(number).unwrap()
}

#[test]
fn of_two_reasons_to_refuse_the_earlier_in_the_enum_is_given() {
    use Refusal::*;
    let full = i64::MAX;
    // What alice and bob hold, what alice asks for, the reason given, the later one.
    let cases: [(i64, i64, Command, Refusal, Refusal); 14] = [
        (9, 0, buys(STRANGER, "cup").once("used", 2), UnknownAccount, KeyReused),
        (9, 0, is_refused(STRANGER, Malformed), UnknownAccount, Malformed),
        (9, 0, sends(STRANGER, "nobody", 1), UnknownAccount, UnknownRecipient),
        (9, 0, is_refused(ALICE, Malformed).once("used", 2), KeyReused, Malformed),
        (9, 0, is_refused(ALICE, AmountNotPositive).once("used", 2), KeyReused, AmountNotPositive),
        (9, 0, buys(ALICE, "yacht").once("used", 2), KeyReused, UnknownItem),
        (9, 0, sends(ALICE, "bob", 10).once("used", 2), KeyReused, InsufficientCoins),
        (0, full, is_refused(ALICE, Malformed), Malformed, InsufficientCoins),
        (0, full, is_refused(ALICE, AmountNotPositive), AmountNotPositive, InsufficientCoins),
        (0, 0, buys(ALICE, "yacht"), UnknownItem, InsufficientCoins),
        (0, 0, sends(ALICE, "nobody", 1), UnknownRecipient, InsufficientCoins),
        (0, 0, sends(ALICE, "alice", 1), SelfTransfer, InsufficientCoins),
        (full, 0, sends(ALICE, "alice", 1), SelfTransfer, RecipientFull),
        (0, full, sends(ALICE, "bob", 1), InsufficientCoins, RecipientFull),
    ];
    for (alice, bob, command, expected, later) in cases {
        assert!((expected as usize) < later as usize, "{command:?}");
        let mut ledger = Books::of([("alice", alice), ("bob", bob)]).whole();
        for account in [ALICE, STRANGER] {
            let key = IdempotencyKey::parse(b"used").unwrap();
            let remembered = Remembered { fingerprint: Fingerprint([1; 32]), outcome: Ok(None) };
            ledger.keys.insert((account, key), remembered);
        }
        let (answers, changes) = execute(ledger, std::slice::from_ref(&command));
        assert_eq!(answers, [refused(expected)], "{command:?}");
        assert!(changes.is_empty(), "{command:?}: {changes:?}");
    }
}

#[test]
fn each_refusal_is_given_for_its_own_reason_alone() {
    use Refusal::*;
    for (alice, bob, command, expected) in [
        (9, 9, opens("alice"), UsernameTaken),
        (9, 9, buys(STRANGER, "pen"), UnknownAccount),
        (99, 9, is_refused(ALICE, Malformed), Malformed),
        (99, 9, is_refused(ALICE, AmountNotPositive), AmountNotPositive),
        (99, 9, buys(ALICE, "yacht"), UnknownItem),
        (99, 9, sends(ALICE, "nobody", 1), UnknownRecipient),
        (99, 9, sends(ALICE, "alice", 1), SelfTransfer),
        (9, 9, buys(ALICE, "pen"), InsufficientCoins),
        (9, 9, sends(ALICE, "bob", 10), InsufficientCoins),
        (99, i64::MAX, sends(ALICE, "bob", 1), RecipientFull),
    ] {
        let mut books = Books::of([("alice", alice), ("bob", bob)]);
        let before = books.clone();
        assert_eq!(books.carry_out(std::slice::from_ref(&command)), [refused(expected)]);
        assert_eq!(books, before, "{command:?}");
    }
}

#[test]
fn every_refusal_has_a_name_of_its_own_and_answers_to_it() {
    for (position, refusal) in Refusal::ALL.into_iter().enumerate() {
        assert_eq!(refusal as usize, position, "{refusal:?} stands where the enum has it");
        assert_eq!(Refusal::from_code(refusal.code()), Some(refusal));
        assert!(!refusal.to_string().is_empty());
    }
    for code in ["", "done", "Malformed"] {
        assert_eq!(Refusal::from_code(code), None, "{code:?}");
    }
}

#[test]
fn the_last_coin_can_be_spent_and_the_last_place_can_be_filled() {
    for (alice, bob, command, after) in [
        (20, 5, buys(ALICE, "cup"), (0, 5)),
        (20, 5, sends(ALICE, "bob", 20), (0, 25)),
        (1, i64::MAX - 1, sends(ALICE, "bob", 1), (0, i64::MAX)),
        (i64::MAX, 0, sends(ALICE, "bob", i64::MAX), (0, i64::MAX)),
    ] {
        let mut books = Books::of([("alice", alice), ("bob", bob)]);
        assert_eq!(books.carry_out(std::slice::from_ref(&command)), [done(1)], "{command:?}");
        assert_eq!((books.holds(ALICE), books.holds(BOB)), after, "{command:?}");
    }
}

#[test]
fn a_command_sees_what_those_before_it_in_the_batch_did() {
    let mut books = Books::of([("alice", 0), ("bob", 30)]);
    let answers = books.carry_out(&[
        buys(ALICE, "cup"),
        sends(BOB, "alice", 30),
        buys(ALICE, "cup"),
        sends(BOB, "alice", 1),
        sends(ALICE, "bob", 10),
        buys(BOB, "pen"),
    ]);
    let broke = refused(Refusal::InsufficientCoins);
    assert_eq!(answers, [broke, done(1), done(2), broke, done(3), done(4)]);
    assert_eq!((books.holds(ALICE), books.holds(BOB)), (0, 0));
}

#[test]
fn an_account_obeys_its_owner_alone_even_where_a_key_remembers_the_order() {
    let elsewhere = BooksId(Uuid::from_u128(2));
    for (by, expected) in [
        (owner_of(ALICE), Ok(Receipt::Done(Some(LogNumber(1))))),
        (Owner { username: name("bob"), ..owner_of(ALICE) }, Err(Refusal::UnknownAccount)),
        (Owner { username: name("Alice"), ..owner_of(ALICE) }, Err(Refusal::UnknownAccount)),
        (Owner { account: BOB, ..owner_of(ALICE) }, Err(Refusal::UnknownAccount)),
        (Owner { books: elsewhere, ..owner_of(ALICE) }, Err(Refusal::UnknownAccount)),
    ] {
        let mut books = Books::of([("alice", 100), ("bob", 100)]);
        let purchase = buys(ALICE, "cup").once("key", 1);
        assert_eq!(books.carry_out(std::slice::from_ref(&purchase)), [done(1)]);
        let Command::Order(order) = purchase else { unreachable!("an order") };
        let again = Command::Order(Order { by: by.clone(), ..order.clone() });
        let another = Command::Order(Order { by: by.clone(), key: None, ..order });
        let answers = books.carry_out(&[again, another]);
        assert_eq!(answers[0], Answer { result: expected, replayed: expected.is_ok() }, "{by:?}");
        let next = expected.map(|_| Receipt::Done(Some(LogNumber(2))));
        assert_eq!(answers[1], Answer { result: next, replayed: false }, "{by:?}");
    }
}

#[test]
fn books_that_do_not_say_which_they_are_obey_nobody() {
    let order = buys(ALICE, "cup");
    let ledger = Ledger { books: None, ..Books::of([("alice", 100)]).whole() };
    assert_eq!(execute(ledger, &[order]).0, [refused(Refusal::UnknownAccount)]);
}

#[test]
fn an_account_can_be_opened_and_paid_in_one_batch() {
    let books = Books::of([("alice", 50)]);
    let newcomer = number_of("newcomer");
    let commands = [
        sends(ALICE, "newcomer", 1),
        opens("newcomer"),
        sends(ALICE, "newcomer", 7),
        opens("newcomer"),
        sends(newcomer, "alice", 1007),
    ];
    let (answers, changes) = execute(books.ledger_for(&commands), &commands);
    let opened = Answer { result: Ok(Receipt::Opened(newcomer)), replayed: false };
    let unknown = refused(Refusal::UnknownRecipient);
    assert_eq!(answers, [unknown, opened, done(2), refused(Refusal::UsernameTaken), done(3)]);

    let [account] = changes.opened.as_slice() else { panic!("{changes:?}") };
    assert_eq!((account.id, account.grant.get()), (newcomer, 1000));
    assert_eq!(account.number, LogNumber(1), "the grant is a row of the log as well");
    assert_eq!((account.username.as_str(), &*account.password_hash), ("newcomer", "hash"));
    assert_eq!(changes.balances, [(ALICE, coins(1050)), (newcomer, coins(0))].into());
}

#[test]
fn an_account_that_nobody_paid_yet_keeps_its_grant_and_needs_no_new_balance() {
    let mut books = Books::of([]);
    let commands = [opens("first"), opens("second")];
    let (_, changes) = execute(books.ledger_for(&commands), &commands);
    assert_eq!(changes.opened.len(), 2);
    assert!(changes.balances.is_empty() && changes.entries.is_empty(), "{changes:?}");
    books.write(&changes);
    assert_eq!(books.holds(number_of("first")), 1000);
}

#[test]
fn changes_are_sorted_added_up_and_entered_in_the_order_of_the_commands() {
    let mut books = Books::of([("alice", 1000), ("bob", 1000), ("carol", 1000)]);
    let carol = number_of("carol");
    let commands = [
        buys(carol, "pen"),
        sends(carol, "alice", 3),
        buys(BOB, "cup"),
        buys(carol, "pen"),
        sends(ALICE, "nobody", 1),
        buys(BOB, "cup"),
        buys(carol, "cup"),
    ];
    let (_, changes) = execute(books.ledger_for(&commands), &commands);

    let balances = [(ALICE, coins(1003)), (BOB, coins(960)), (carol, coins(957))];
    assert_eq!(changes.balances.iter().map(|(a, c)| (*a, *c)).collect::<Vec<_>>(), balances);

    let (pen, cup) = (books.item("pen"), books.item("cup"));
    assert_eq!(changes.purchases, [((BOB, cup), 2), ((carol, cup), 1), ((carol, pen), 2)].into());

    let entry = |number, from, to, coins| Entry {
        number: LogNumber(number),
        from,
        to,
        amount: amount(coins),
    };
    assert_eq!(
        changes.entries,
        [
            entry(1, carol, Destination::Item(pen), 10),
            entry(2, carol, Destination::Account(ALICE), 3),
            entry(3, BOB, Destination::Item(cup), 20),
            entry(4, carol, Destination::Item(pen), 10),
            entry(5, BOB, Destination::Item(cup), 20),
            entry(6, carol, Destination::Item(cup), 20),
        ]
    );
    assert_eq!(changes.head, (LogNumber(0), LogNumber(6)));
    books.write(&changes);
}

#[test]
fn rows_are_numbered_from_the_head_on_and_what_is_refused_takes_no_number() {
    let mut books = Books::of([("alice", 1000), ("bob", 0)]);
    books.head = LogNumber(41);
    let commands = [
        buys(ALICE, "pen"),
        buys(BOB, "pen"),
        opens("first"),
        sends(ALICE, "bob", 1).once("a", 1),
        sends(ALICE, "bob", 1).once("a", 1),
        buys(ALICE, "cup"),
    ];
    let answers = books.carry_out(&commands);
    let replayed = Answer { replayed: true, ..done(44) };
    assert_eq!((answers[0], answers[3], answers[4]), (done(42), done(44), replayed));
    assert_eq!((answers[5], books.head), (done(45), LogNumber(45)));

    // A release without numbers remembered nothing but that it was done.
    let key = (ALICE, IdempotencyKey::parse(b"a").unwrap());
    books.keys.get_mut(&key).unwrap().outcome = Ok(None);
    let answers = books.carry_out(&commands[3..4]);
    assert_eq!(answers, [Answer { result: Ok(Receipt::Done(None)), replayed: true }]);
    assert_eq!(books.head, LogNumber(45));
}

#[test]
fn a_refusal_is_remembered_unless_it_says_who_asks_or_what_the_key_is_of() {
    let forgotten = [Refusal::UsernameTaken, Refusal::UnknownAccount, Refusal::KeyReused];
    for refusal in Refusal::ALL {
        assert_eq!(refusal.is_remembered(), !forgotten.contains(&refusal), "{refusal:?}");
        let mut books = Books::of([("alice", 5)]);
        books.carry_out(&[is_refused(ALICE, refusal).once("a", 1)]);
        assert_eq!(books.keys.len(), usize::from(refusal.is_remembered()), "{refusal:?}");
    }
}

#[test]
fn nothing_asked_or_everything_refused_leaves_nothing_to_write() {
    let books = Books::of([("alice", 1)]);
    for commands in [&[][..], &[buys(ALICE, "cup"), sends(ALICE, "bob", 1), opens("alice")]] {
        let (answers, changes) = execute(books.ledger_for(commands), commands);
        assert_eq!(answers.len(), commands.len());
        assert!(changes.is_empty() && changes.balances.is_empty(), "{changes:?}");
        assert!(changes.purchases.is_empty(), "{changes:?}");
    }
}
