//! `GET /api/history/{id}`: one movement of the user's coins, and how each kind looks.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::shop::LogNumber;
use crate::storage::{Movement, MovementKind};

use super::Shop;
use super::docs;
use super::error::ApiError;
use super::extract::Authenticated;

/// One movement of the user's coins; grants, refunds, what is received and reversals that have
/// `fromUser` are gains. Which one it is, `type` says.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(discriminator(property_name = "type", mapping(
    ("grant" = "#/components/schemas/GrantEntry"),
    ("correction" = "#/components/schemas/CorrectionEntry"),
    ("received" = "#/components/schemas/ReceivedEntry"),
    ("sent" = "#/components/schemas/SentEntry"),
    ("reversal" = "#/components/schemas/ReversalEntry"),
    ("purchase" = "#/components/schemas/PurchaseEntry"),
    ("refund" = "#/components/schemas/RefundEntry"),
)))]
pub enum MovementEntry {
    Grant(GrantEntry),
    Correction(CorrectionEntry),
    Received(ReceivedEntry),
    Sent(SentEntry),
    Reversal(ReversalEntry),
    Purchase(PurchaseEntry),
    Refund(RefundEntry),
}

/// Defines the entry of one kind of movement, and its `type`, an enum of the one value that it
/// has: generators of clients know no better way to say so.
macro_rules! entry {
    (
        $(#[$about:meta])*
        $entry:ident($tag:ident::$value:ident) { $($(#[$attribute:meta])* $field:ident: $of:ty,)* }
    ) => {
        $(#[$about])*
        #[derive(Serialize, ToSchema)]
        pub struct $entry {
            #[serde(rename = "type")]
            #[schema(inline)]
            kind: $tag,
            /// The number of the movement; a larger one is newer.
            #[schema(minimum = 1)]
            id: i64,
            $($(#[$attribute])* $field: $of,)*
            /// Coins, at least 1.
            #[schema(minimum = 1)]
            amount: i64,
            /// The number of the movement that this one undoes.
            #[serde(rename = "ref")]
            undoes: Option<i64>,
            #[serde(with = "time::serde::rfc3339")]
            #[schema(value_type = String, format = DateTime)]
            at: OffsetDateTime,
        }

        #[derive(Serialize, ToSchema)]
        #[serde(rename_all = "lowercase")]
        enum $tag {
            $value,
        }

        impl $entry {
            fn new(it: Common, $($field: $of),*) -> $entry {
                let Common { id, amount, undoes, at } = it;
                $entry { kind: $tag::$value, id, $($field,)* amount, undoes, at }
            }
        }
    };
}

entry! {
    /// Coins from the company, such as those that an account starts with.
    GrantEntry(GrantType::Grant) {}
}
entry! {
    /// Coins that the company took back.
    CorrectionEntry(CorrectionType::Correction) {}
}
entry! {
    /// Coins from a colleague.
    ReceivedEntry(ReceivedType::Received) {
        #[serde(rename = "fromUser")]
        from_user: String,
    }
}
entry! {
    /// Coins to a colleague.
    SentEntry(SentType::Sent) {
        #[serde(rename = "toUser")]
        to_user: String,
    }
}
entry! {
    /// A transfer, undone: the coins are back from its recipient, or back with its giver.
    ReversalEntry(ReversalType::Reversal) {
        #[serde(rename = "fromUser", skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        from_user: Option<String>,
        #[serde(rename = "toUser", skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        to_user: Option<String>,
    }
}
entry! {
    /// One piece of merch, bought.
    PurchaseEntry(PurchaseType::Purchase) {
        item: String,
    }
}
entry! {
    /// A purchase, undone.
    RefundEntry(RefundType::Refund) {
        item: String,
    }
}

/// One movement of one's coins, from either side of it.
#[utoipa::path(
    get, path = "/api/history/{id}", tag = "shop", operation_id = "getMovement",
    params(("id" = i64, Path, description = "The number of the movement.", minimum = 1, example = 7)),
    responses(
        (status = OK, description = "The movement.", body = MovementEntry),
        docs::Guarded,
    ),
)]
pub async fn movement(
    State(shop): State<Arc<Shop>>,
    Authenticated(owner): Authenticated,
    number: Result<Path<String>, PathRejection>,
) -> Result<Json<MovementEntry>, ApiError> {
    let number = number.ok().and_then(|Path(text)| number_of(&text)).ok_or(ApiError::NoMovement)?;
    match shop.database.history_fetch(&owner, number).await? {
        Some(movement) => Ok(Json(movement.into())),
        None => {
            super::history::make_sure_of(&shop, &owner).await?;
            Err(ApiError::NoMovement)
        }
    }
}

/// The number that `text` spells as entries do: any other spelling is the number of nothing.
fn number_of(text: &str) -> Option<LogNumber> {
    let number = text.parse().ok().filter(|number: &i64| number.to_string() == text);
    number.map(LogNumber)
}

/// What all entries have.
struct Common {
    id: i64,
    amount: i64,
    undoes: Option<i64>,
    at: OffsetDateTime,
}

impl From<Movement> for MovementEntry {
    fn from(Movement { id, kind, amount, undoes, at }: Movement) -> MovementEntry {
        let it = Common { id, amount, undoes, at };
        match kind {
            MovementKind::Grant => MovementEntry::Grant(GrantEntry::new(it)),
            MovementKind::Correction => MovementEntry::Correction(CorrectionEntry::new(it)),
            MovementKind::Received { from } => {
                MovementEntry::Received(ReceivedEntry::new(it, from))
            }
            MovementKind::Sent { to } => MovementEntry::Sent(SentEntry::new(it, to)),
            MovementKind::GotBack { from } => {
                MovementEntry::Reversal(ReversalEntry::new(it, Some(from), None))
            }
            MovementKind::GaveBack { to } => {
                MovementEntry::Reversal(ReversalEntry::new(it, None, Some(to)))
            }
            MovementKind::Purchase { item } => {
                MovementEntry::Purchase(PurchaseEntry::new(it, item))
            }
            MovementKind::Refund { item } => MovementEntry::Refund(RefundEntry::new(it, item)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_first_of_which_kind_it_is() {
        let entry = |kind, undoes| {
            let at = OffsetDateTime::UNIX_EPOCH;
            let entry = MovementEntry::from(Movement { id: 7, kind, amount: 10, undoes, at });
            serde_json::to_string(&entry).unwrap()
        };
        let end = r#""amount":10,"ref":null,"at":"1970-01-01T00:00:00Z"}"#;
        let undone = r#""amount":10,"ref":5,"at":"1970-01-01T00:00:00Z"}"#;
        let (alice, cup) = (|| "alice".to_owned(), || "cup".to_owned());
        for (kind, undoes, start, end) in [
            (MovementKind::Grant, None, r#"{"type":"grant","id":7,"#, end),
            (MovementKind::Correction, None, r#"{"type":"correction","id":7,"#, end),
            (
                MovementKind::Received { from: alice() },
                None,
                r#"{"type":"received","id":7,"fromUser":"alice","#,
                end,
            ),
            (
                MovementKind::Sent { to: alice() },
                None,
                r#"{"type":"sent","id":7,"toUser":"alice","#,
                end,
            ),
            (
                MovementKind::GotBack { from: alice() },
                Some(5),
                r#"{"type":"reversal","id":7,"fromUser":"alice","#,
                undone,
            ),
            (
                MovementKind::GaveBack { to: alice() },
                Some(5),
                r#"{"type":"reversal","id":7,"toUser":"alice","#,
                undone,
            ),
            (
                MovementKind::Purchase { item: cup() },
                None,
                r#"{"type":"purchase","id":7,"item":"cup","#,
                end,
            ),
            (
                MovementKind::Refund { item: cup() },
                Some(5),
                r#"{"type":"refund","id":7,"item":"cup","#,
                undone,
            ),
        ] {
            assert_eq!(entry(kind, undoes), format!("{start}{end}"));
        }
    }
}
