//! `POST /api/sendCoin`.

use serde_json::json;

use crate::support::TestShop;

#[tokio::test]
async fn coins_go_from_one_to_the_other_and_both_see_it() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);

    alice.sends("bob", 300).await.is_done();
    alice.sends("bob", 1).await.is_done();

    assert_eq!(
        alice.info().await,
        json!({
            "coins": 699,
            "inventory": [],
            "coinHistory": {
                "received": [],
                "sent": [{"toUser": "bob", "amount": 1}, {"toUser": "bob", "amount": 300}],
            },
        })
    );
    assert_eq!(bob.coins().await, 1301);
    shop.is_honest().await;
}
