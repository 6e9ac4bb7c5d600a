"""Cell types by signatures and by classification: what nm.tl.annotate and nm.tl.transfer are made of."""
