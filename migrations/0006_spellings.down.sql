DROP INDEX users_other_spellings_idx;
