-- Reads the whole history, and keeps nobody from it.
ALTER TABLE history VALIDATE CONSTRAINT history_shape;
