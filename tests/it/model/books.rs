//! The model: a list of everything that ever happened. Whatever is asked of it is worked
//! out from the whole list.

use serde_json::{Value, json};

use super::requests::Request;

/// The price list of the contract.
const PRICES: [(&str, i64); 10] = [
    ("t-shirt", 80),
    ("cup", 20),
    ("book", 50),
    ("pen", 10),
    ("powerbank", 200),
    ("hoody", 300),
    ("umbrella", 200),
    ("socks", 10),
    ("wallet", 50),
    ("pink-hoody", 500),
];

#[derive(Default)]
pub struct Books {
    events: Vec<Event>,
    promises: Vec<Promise>,
}

#[derive(Clone)]
enum Event {
    Granted { to: String },
    Sent { from: String, to: String, amount: i64 },
    Bought { by: String, item: String },
}

/// What a key was first used for, and how that ended.
struct Promise {
    by: String,
    key: String,
    request: Request,
    answer: Expected,
}

/// The answer that is to be expected; no code means that it was done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    pub status: u16,
    pub code: Option<&'static str>,
    /// The number of the movement that was made.
    pub number: Option<usize>,
    pub replayed: bool,
}

pub fn price(item: &str) -> Option<i64> {
    PRICES.iter().find(|(name, _)| *name == item).map(|(_, price)| *price)
}

impl Books {
    /// `name` logs in for the first time.
    pub fn opens(&mut self, name: &str) {
        self.events.push(Event::Granted { to: name.into() });
    }

    fn knows(&self, name: &str) -> bool {
        self.events.iter().any(|event| matches!(event, Event::Granted { to } if to == name))
    }

    pub fn coins(&self, name: &str) -> i64 {
        let change = |event: &Event| match event {
            Event::Granted { to } if to == name => 1000,
            Event::Sent { to, amount, .. } if to == name => *amount,
            Event::Sent { from, amount, .. } if from == name => -amount,
            Event::Bought { by, item } if by == name => -price(item).unwrap(),
            _ => 0,
        };
        self.events.iter().map(change).sum()
    }

    /// What the shop must say to `request`, and what happens by it.
    pub fn answer(&mut self, by: &str, request: &Request, key: Option<&str>) -> Expected {
        let promise = self.promises.iter().find(|it| it.by == by && Some(&*it.key) == key);
        match promise {
            Some(promise) if promise.request == *request => {
                return Expected { replayed: true, ..promise.answer };
            }
            Some(_) => return refused(422, "idempotency_key_reused"),
            None => {}
        }
        let answer = match self.carry_out(by, request) {
            Ok(event) => {
                self.events.push(event);
                let number = Some(self.events.len());
                Expected { status: 200, code: None, number, replayed: false }
            }
            Err(code) => refused(400, code),
        };
        if let Some(key) = key {
            let (by, key, request) = (by.into(), key.into(), request.clone());
            self.promises.push(Promise { by, key, request, answer });
        }
        answer
    }

    fn carry_out(&self, by: &str, request: &Request) -> Result<Event, &'static str> {
        let (cost, event) = match request {
            Request::Nonsense { code, .. } => return Err(code),
            Request::Buy { item } => {
                let cost = price(item).ok_or("unknown_item")?;
                (cost, Event::Bought { by: by.into(), item: item.clone() })
            }
            Request::Send { to, .. } if !self.knows(to) => return Err("unknown_recipient"),
            Request::Send { to, .. } if to == by => return Err("self_transfer"),
            Request::Send { to, amount } => {
                (*amount, Event::Sent { from: by.into(), to: to.clone(), amount: *amount })
            }
        };
        if cost > self.coins(by) { Err("insufficient_coins") } else { Ok(event) }
    }

    /// The body of `GET /api/info`.
    pub fn info(&self, name: &str, limit: usize) -> Value {
        let inventory: Vec<Value> = PRICES
            .iter()
            .filter_map(|(product, _)| {
                let bought = |event: &&Event| matches!(event, Event::Bought { by, item } if by == name && item == product);
                let quantity = self.events.iter().filter(bought).count();
                (quantity > 0).then(|| json!({"type": product, "quantity": quantity}))
            })
            .collect();
        let newest = self.events.iter().rev();
        let received: Vec<Value> = newest
            .clone()
            .filter_map(|event| match event {
                Event::Sent { from, to, amount } if to == name => {
                    Some(json!({"fromUser": from, "amount": amount}))
                }
                _ => None,
            })
            .take(limit)
            .collect();
        let sent: Vec<Value> = newest
            .filter_map(|event| match event {
                Event::Sent { from, to, amount } if from == name => {
                    Some(json!({"toUser": to, "amount": amount}))
                }
                _ => None,
            })
            .take(limit)
            .collect();
        json!({
            "coins": self.coins(name),
            "inventory": inventory,
            "coinHistory": {"received": received, "sent": sent},
        })
    }

    /// All pages of `GET /api/history` together, without the times.
    pub fn history(&self, name: &str) -> Vec<Value> {
        let seen = |event: &Event| match event {
            Event::Granted { to } if to == name => Some(json!({"type": "grant", "amount": 1000})),
            Event::Sent { from, to, amount } if to == name => {
                Some(json!({"type": "received", "fromUser": from, "amount": amount}))
            }
            Event::Sent { from, to, amount } if from == name => {
                Some(json!({"type": "sent", "toUser": to, "amount": amount}))
            }
            Event::Bought { by, item } if by == name => {
                Some(json!({"type": "purchase", "item": item, "amount": price(item)}))
            }
            _ => None,
        };
        let numbered = |(number, event): (usize, &Event)| {
            let mut movement = seen(event)?;
            movement["id"] = (number + 1).into();
            movement["ref"] = Value::Null;
            Some(movement)
        };
        self.events.iter().enumerate().rev().filter_map(numbered).collect()
    }
}

fn refused(status: u16, code: &'static str) -> Expected {
    Expected { status, code: Some(code), number: None, replayed: false }
}
