-- Nothing to undo: such tokens would be of nobody then, too.
SELECT;
