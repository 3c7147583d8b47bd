-- Names from before that are not spelled as new ones are: few, so that finding one by another
-- spelling costs next to nothing. docs/decisions/0021 says why.
CREATE INDEX users_other_spellings_idx ON users (normalize(username, NFKC))
    WHERE username IS NOT NFKC NORMALIZED;
