//! `GET /api/merch`: the catalogue.

use reqwest::Method;
use serde_json::json;

use crate::support::{Reply, TestShop};

#[tokio::test]
async fn anybody_can_see_what_is_on_sale_and_what_it_costs() {
    let shop = TestShop::open().await;
    let catalogue = json!({
        "items": [
            {"type": "t-shirt", "price": 80},
            {"type": "cup", "price": 20},
            {"type": "book", "price": 50},
            {"type": "pen", "price": 10},
            {"type": "powerbank", "price": 200},
            {"type": "hoody", "price": 300},
            {"type": "umbrella", "price": 200},
            {"type": "socks", "price": 10},
            {"type": "wallet", "price": 50},
            {"type": "pink-hoody", "price": 500},
        ],
    });
    let reply = shop.gets("/api/merch").await;
    assert_eq!((reply.status.as_u16(), reply.json()), (200, catalogue.clone()));
    // A token that is worth nothing elsewhere is no obstacle here.
    let reply = Reply::to(shop.request(Method::GET, "/api/merch").bearer_auth("expired")).await;
    assert_eq!((reply.status.as_u16(), reply.json()), (200, catalogue));
}

#[tokio::test]
async fn what_the_database_puts_on_sale_is_shown_and_can_be_bought() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    shop.database.execute("INSERT INTO merch (id, name, price) VALUES (11, 'cap', 35)").await;
    let items = shop.gets("/api/merch").await.json()["items"].take();
    assert_eq!(items[10], json!({"type": "cap", "price": 35}));
    alice.buys("cap").await.is_done();
    assert_eq!((alice.coins().await, alice.owns("cap").await), (965, 1));
    shop.is_honest().await;
}
