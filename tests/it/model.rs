//! Random requests, answered by the shop and by a model of it that shares no code with it.
//!
//! A failure names its seed; MERCH_TEST_SEED repeats it.

mod books;
mod requests;

use std::collections::BTreeMap;

use futures::future::{join, join_all};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::support::shop::Bank;
use crate::support::{Person, TestShop};

use books::Books;
use requests::{Request, random_request};

const REQUESTS: usize = 600;

/// Requests between comparisons.
const STRIDE: usize = 12;

/// Transfers that `/api/info` shows each way: few, so that the limit matters.
const HISTORY_LIMIT: usize = 5;

fn seed() -> u64 {
    let given = std::env::var("MERCH_TEST_SEED").ok();
    given.map_or_else(rand::random, |seed| seed.parse().expect("MERCH_TEST_SEED is a number"))
}

#[tokio::test]
async fn the_shop_answers_any_sequence_of_requests_as_the_model_does() {
    let seed = seed();
    let context = format!("MERCH_TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let limit = HISTORY_LIMIT.try_into().unwrap();
    let shop = TestShop::with(|config| config.info.history_limit = limit).await;
    let mut books = Books::default();
    let mut people = Vec::new();
    let mut newcomers = vec!["eve", "dave", "carol", "bob", "alice"];

    for number in 0..REQUESTS {
        // Two from the start; the others may be paid in vain before they come.
        if people.len() < 2 || (!newcomers.is_empty() && number % (REQUESTS / 5) == 0) {
            let name = newcomers.pop().unwrap();
            people.push(shop.logs_in(name).await);
            books.opens(name);
        }
        let person = people.choose(&mut rng).unwrap();
        let request = random_request(&mut rng, &books, &person.name);
        let key = rng.random_bool(0.5).then(|| format!("key {}", rng.random_range(0..12)));

        let expected = books.answer(&person.name, &request, key.as_deref());
        let reply = request.ask(person, key.as_deref(), &mut rng).await;
        let what = format!("{context}: request {number}, {} {request:?} {key:?}", person.name);
        let code = (!reply.text.is_empty()).then(|| reply.json()["code"].clone());
        let replayed = reply.header("idempotency-replayed") == Some("true");
        let location = reply.header("location").map(str::to_owned);
        let said = (reply.status.as_u16(), code, location, replayed);
        let code = expected.code.map(Value::from);
        let location = expected.number.map(|number| format!("/api/history/{number}"));
        assert_eq!(said, (expected.status, code, location, expected.replayed), "{what}");

        if number % STRIDE == 0 {
            let person = people.choose(&mut rng).unwrap();
            compare(person, &books, &mut rng, &what).await;
        }
    }
    for person in &people {
        compare(person, &books, &mut rng, &context).await;
    }
    shop.is_honest().await;
}

/// What the shop says of `person` is what the model says.
async fn compare(person: &Person, books: &Books, rng: &mut StdRng, context: &str) {
    let info = person.info().await;
    assert_eq!(info, books.info(&person.name, HISTORY_LIMIT), "{context}: info of {}", person.name);
    let page = rng.random_range(1..40);
    let history = history(person, page).await;
    let expected = books.history(&person.name);
    assert_eq!(history, expected, "{context}: history of {}, {page} a page", person.name);
}

/// The whole history, read page by page, without the times, which only must not go back.
async fn history(person: &Person, limit: usize) -> Vec<Value> {
    let mut movements: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let reply = person.gets(&format!("/api/history?limit={limit}{cursor}")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let mut page = reply.json();
        let Value::Array(on_page) = page["movements"].take() else { panic!("{reply:?}") };
        assert!(on_page.len() <= limit);
        movements.extend(on_page);
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let times: Vec<String> = movements
        .iter_mut()
        .map(|movement| movement.as_object_mut().unwrap().remove("at").unwrap())
        .map(|at| at.as_str().unwrap().to_owned())
        .collect();
    let second = |at: &String| at[..19].to_owned();
    assert!(times.windows(2).all(|pair| second(&pair[0]) >= second(&pair[1])), "{times:?}");
    movements
}

/// What one person was told had been done.
#[derive(Debug, Default, PartialEq)]
struct Done {
    sent: BTreeMap<String, i64>,
    bought: BTreeMap<String, i64>,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_twice_at_once_is_done_once_and_no_coin_is_lost() {
    let seed = seed();
    let context = format!("MERCH_TEST_SEED={seed}");
    let shop = TestShop::open().await;
    let people = Bank::open(&shop.database, 6, 400).await;
    let people: Vec<Person> = people.iter().map(|person| person.at(&shop.base)).collect();
    let mut books = Books::default();
    people.iter().for_each(|person| books.opens(&person.name));

    let everybody = people.iter().zip(0..).map(|(person, number)| {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(number));
        let (books, context) = (&books, &context);
        async move {
            let mut done = Done::default();
            for order in 0..40 {
                // The books are those of the start: good enough to think up requests.
                let request = random_request(&mut rng, books, &person.name);
                let key = format!("order {order}");
                let mut other = StdRng::from_rng(&mut rng);
                let (one, two) = join(
                    request.ask(person, Some(&key), &mut rng),
                    request.ask(person, Some(&key), &mut other),
                )
                .await;
                let what = format!("{context}: {} {request:?}: {one:?} {two:?}", person.name);
                assert_eq!((one.status, &one.text), (two.status, &two.text), "{what}");
                assert_eq!(one.header("location"), two.header("location"), "{what}");
                assert!([200, 400].contains(&one.status.as_u16()), "{what}");
                let replays = [&one, &two]
                    .map(|reply| usize::from(reply.header("idempotency-replayed").is_some()));
                assert_eq!(replays[0] + replays[1], 1, "{what}");
                match request {
                    _ if one.status != 200 => {}
                    Request::Buy { item } => *done.bought.entry(item).or_default() += 1,
                    Request::Send { to, amount } => *done.sent.entry(to).or_default() += amount,
                    Request::Nonsense { .. } => panic!("{what}"),
                }
            }
            done
        }
    });
    let done = join_all(everybody).await;

    let mut held = 0;
    for (person, done) in people.iter().zip(&done) {
        let mut present = Done::default();
        for movement in history(person, 100).await {
            let amount = movement["amount"].as_i64().unwrap();
            if let Some(to) = movement["toUser"].as_str() {
                *present.sent.entry(to.into()).or_default() += amount;
            } else if let Some(item) = movement["item"].as_str() {
                *present.bought.entry(item.into()).or_default() += 1;
            }
        }
        assert_eq!(present, *done, "{context}: what {} was told and what there is", person.name);
        held += person.coins().await;
    }
    let spent: i64 = done
        .iter()
        .flat_map(|done| &done.bought)
        .map(|(item, quantity)| books::price(item).unwrap() * quantity)
        .sum();
    assert_eq!(held + spent, 6 * 400, "{context}");
    shop.is_honest().await;
}
