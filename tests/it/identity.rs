//! A token opens the account that it was issued for and no other, whatever became of the
//! database meanwhile.

use std::process::Output;
use std::time::SystemTime;

use jsonwebtoken::Algorithm;
use merch_store::storage::{Database, Migrations};
use serde_json::json;
use sqlx::Connection;
use uuid::Uuid;

use crate::support::process::command;
use crate::support::shop::Replica;
use crate::support::token::Draft;
use crate::support::{Person, TestDatabase, TestShop};

/// Makes a restored database look as if its files had been put back, which nothing can tell.
const AT_HOME: &str = "UPDATE identity SET table_oid = identity.tableoid,
    database_oid = (SELECT oid FROM pg_database WHERE datname = current_database())";

fn number(person: &Person) -> i64 {
    Draft::from(person).claims["uid"].as_i64().unwrap()
}

async fn renew(database: &TestDatabase) -> Output {
    let arguments = ["identity", "renew", "--database-url", database.url().as_str()];
    command(&arguments).output().await.unwrap()
}

/// The same person with a token like those of the release before, which name no database.
fn with_an_old_token(person: &Person, issued_at: u64) -> Person {
    let mut draft = Draft::from(person);
    draft.claims.as_object_mut().unwrap().remove("db");
    draft.claims["iat"] = json!(issued_at);
    person.with(draft.sign(Algorithm::HS256))
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

#[tokio::test]
async fn a_number_that_is_given_out_again_after_a_restore_does_not_obey_its_former_owner() {
    for at_home in [false, true] {
        let shop = TestShop::open().await;
        let alice = shop.logs_in("alice").await;
        let dump = shop.database.dump().await;
        let victim = shop.logs_in("victim").await;
        victim.buys_once("cup", "a key").await.is_done();

        let restored = TestDatabase::blank().await;
        restored.restore(&dump).await;
        if at_home {
            restored.execute(AT_HOME).await;
        }
        let restored = TestShop::on(restored).await;
        let mallory = restored.logs_in("mallory").await;
        assert_eq!(number(&mallory), number(&victim));
        // What the replica remembers of the number must not be the victim's either.
        mallory.buys_once("cup", "a key").await.is_done();
        assert_eq!((mallory.coins().await, mallory.coins().await), (980, 980));
        let victim = victim.at(&restored.base);
        victim.is_nobody().await;
        victim.buys_once("cup", "a key").await.is_error(
            401,
            match at_home {
                true => "unknown_account",
                false => "unauthorized",
            },
        );
        with_an_old_token(&victim, now() + 60).is_nobody().await;

        // The name, signed up again, has another number.
        let again = restored.logs_in("victim").await;
        assert_ne!(number(&again), number(&victim));
        assert_eq!((again.coins().await, again.coins().await), (1000, 1000));
        victim.is_nobody().await;
        assert_eq!((mallory.coins().await, again.coins().await), (980, 1000));

        // She was there before the dump: only files that were put back know her token.
        let alice = alice.at(&restored.base).gets("/api/info").await;
        assert_eq!(alice.status, if at_home { 200 } else { 401 });
        restored.is_honest().await;
    }
}

#[tokio::test]
async fn a_database_that_is_opened_anew_knows_no_token_from_before() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let bob = shop.logs_in("bob").await;
    let database = shop.closes().await;
    let down = ["migrate", "down", "--all", "--yes", "--database-url", database.url().as_str()];
    let output = command(&down).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");

    let shop = TestShop::on(database).await;
    // The same name under the same number, and another one.
    let again = shop.logs_in("alice").await;
    let mallory = shop.logs_in("mallory").await;
    assert_eq!((number(&again), number(&mallory)), (number(&alice), number(&bob)));
    for person in [&alice, &bob] {
        person.at(&shop.base).is_nobody().await;
    }
    assert_eq!((again.coins().await, mallory.coins().await), (1000, 1000));
}

#[tokio::test]
async fn a_copy_of_a_database_finds_out_that_it_is_one() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let database = shop.closes().await;
    let copy = TestDatabase::copy_of(database.name()).await;
    let identity = |database: &TestDatabase| Database::new(database.options());
    let [original, first, second, again] = [
        identity(&database).books_fetch().await.unwrap(),
        identity(&copy).books_fetch().await.unwrap(),
        identity(&copy).books_fetch().await.unwrap(),
        identity(&database).books_fetch().await.unwrap(),
    ];
    assert_ne!(original.id, first.id);
    assert_eq!((first, original), (second, again));

    let copied = TestShop::on(copy).await;
    alice.at(&copied.base).is_nobody().await;
    let shop = TestShop::on(database).await;
    assert_eq!(alice.at(&shop.base).coins().await, 1000);
}

#[tokio::test]
async fn numbers_of_the_log_that_may_come_again_are_of_another_epoch() {
    let database = TestDatabase::blank().await;
    let mut migrations = Migrations::connect(&database.options()).await.unwrap();
    migrations.up().await.unwrap();
    migrations.close().await;
    let epoch = async |database: &TestDatabase| {
        let mut connection = database.connect().await;
        let epoch = sqlx::query_scalar::<_, Uuid>("SELECT epoch FROM log_head");
        let epoch = epoch.fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        epoch
    };
    let read = async |database: &TestDatabase| {
        Database::new(database.options()).books_fetch().await.unwrap();
        epoch(database).await
    };
    let original = read(&database).await;
    let copy = TestDatabase::copy_of(database.name()).await;
    let copied = read(&copy).await;
    assert_ne!(copied, original);
    assert_eq!((read(&copy).await, read(&database).await), (copied, original));
    assert_eq!(renew(&database).await.status.code(), Some(0));
    assert_ne!(epoch(&database).await, original);
}

#[tokio::test]
async fn a_database_that_is_opened_anew_knows_no_token_of_the_release_before_either() {
    let shop = TestShop::on(TestDatabase::blank().await).await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    let tokens = [&alice, &bob].map(|person| with_an_old_token(person, now() - 60));
    let database = shop.closes().await;
    let down = ["migrate", "down", "--all", "--yes", "--database-url", database.url().as_str()];
    let output = command(&down).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");

    let shop = TestShop::on(database).await;
    // The same names under the same numbers.
    for (person, token) in [(alice, &tokens[0]), (bob, &tokens[1])] {
        let again = shop.logs_in(&person.name).await;
        assert_eq!(number(&again), number(&person));
        token.at(&shop.base).is_nobody().await;
        assert_eq!(again.coins().await, 1000);
    }
}

#[tokio::test]
async fn renewing_the_identity_ends_every_token_on_every_replica_at_once() {
    let shop = TestShop::on(TestDatabase::blank().await).await;
    // As a database that there was before databases had identities.
    shop.database.execute("UPDATE identity SET renewed_at = NULL").await;
    let other = shop.replica(|_| {}).await;
    let alice = shop.logs_in("alice").await;
    let bob = shop.logs_in("bob").await;
    let old = with_an_old_token(&alice, now() - 60);
    for person in [&alice, &bob, &old] {
        for base in [&shop.base, &other] {
            let person = person.at(base);
            person.sends("bob", 0).await.is_error(400, "invalid_amount");
            person.buys("pen").await.is_done();
            assert_eq!(person.coins().await, person.coins().await);
        }
    }

    let output = renew(&shop.database).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let identities: Vec<&str> = said.split_whitespace().collect();
    let ["old", before, "new", after] = identities[..] else { panic!("{said}") };
    assert_eq!(Draft::from(&alice).claims["db"], before);
    for base in [&shop.base, &other] {
        for person in [&alice, &bob, &old] {
            person.at(base).is_nobody().await;
        }
    }

    // A replica that has not heard of it takes the word of one that has.
    let third = shop.replica(|_| {}).await;
    let alice = Person::logs_in(&shop.client, &third, "alice", "correct horse").await;
    assert_eq!(Draft::from(&alice).claims["db"], after);
    for base in [&shop.base, &other, &third] {
        alice.at(base).buys("pen").await.is_done();
        // As a replica of the release before would issue it now.
        let old = with_an_old_token(&alice, now() + 1).at(base);
        assert_eq!(old.coins().await, alice.at(base).coins().await);
    }
    shop.is_honest().await;
}

#[tokio::test]
async fn a_token_without_a_database_is_good_for_its_own_name_alone() {
    let shop = TestShop::on(TestDatabase::blank().await).await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    let old = with_an_old_token(&alice, now() + 60);
    old.buys("cup").await.is_done();
    assert_eq!((old.coins().await, old.coins().await), (980, 980));

    let mut draft = Draft::from(&old);
    draft.claims["uid"] = json!(number(&bob));
    let wrong = old.with(draft.sign(Algorithm::HS256));
    for _not_known_and_known in 0..2 {
        wrong.is_nobody().await;
        assert_eq!((bob.coins().await, bob.coins().await), (1000, 1000));
    }
}

#[tokio::test]
async fn a_shop_whose_database_is_restored_under_it_forgets_who_was_who() {
    let database = TestDatabase::fresh().await;
    let mut shop = Replica::start(database.url().as_str()).await;
    shop.seed(1, 100).await;
    let alice = shop.people[0].clone();
    let dump = database.dump().await;
    let bob = shop.logs_in("bob").await;
    alice.sends("bob", 1).await.is_done();
    assert_eq!((bob.coins().await, bob.coins().await), (1001, 1001));

    // All at once, with the shop connected all the time.
    let mut script = b"SET client_min_messages = warning; BEGIN; DROP SCHEMA public CASCADE; CREATE SCHEMA public;\n".to_vec();
    script.extend(dump);
    script.extend(b"COMMIT;\n");
    database.restore(&script).await;
    bob.is_nobody().await;
    alice.is_nobody().await;
    let carol = shop.logs_in("carol").await;
    assert_eq!(number(&carol), number(&bob));

    // Nobody can log in as her, but she is there.
    let dave = shop.logs_in("dave").await;
    dave.sends("bob", 10).await.is_error(400, "unknown_recipient");
    dave.sends("carol", 10).await.is_done();
    dave.sends("user1", 10).await.is_done();
    assert_eq!((carol.coins().await, dave.coins().await), (1010, 980));
    bob.is_nobody().await;
    shop.stop().await;
}

#[tokio::test]
async fn an_identity_is_renewed_where_there_is_one() {
    let database = TestDatabase::blank().await;
    let output = renew(&database).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("migrate up"), "{error}");
}
