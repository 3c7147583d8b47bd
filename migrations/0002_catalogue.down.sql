-- Items that somebody owns stay: their purchases are history, which is never rewritten.
DELETE FROM merch
WHERE id BETWEEN 1 AND 10
  AND NOT EXISTS (SELECT 1 FROM history WHERE history.item_id = merch.id);
