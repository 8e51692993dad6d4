"""Programs that developers run: they make what the packages ship and show that intervals cover. No package imports them."""
