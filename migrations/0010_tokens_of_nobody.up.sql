-- Where nobody has an account, no token that names no database was issued for anybody here.
UPDATE identity SET renewed_at = now()
WHERE renewed_at IS NULL AND NOT EXISTS (SELECT FROM users);
