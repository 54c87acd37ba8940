"""Is this gradient right?"""
