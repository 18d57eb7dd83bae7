"""What must survive: records behind two interfaces, and SQLite behind them."""
