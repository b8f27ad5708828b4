"""What keeps patients private: secure summation, small-cell suppression and the account of what was released."""
