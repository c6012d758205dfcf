-- A rerun takes over what a workflow that was terminated owes: under whose id the service knows a
-- step that was not begun here, and by which workflow the debts of this one are owed instead.

ALTER TABLE steps ADD COLUMN origin uuid;
ALTER TABLE workflows ADD COLUMN taken_over_by uuid;
