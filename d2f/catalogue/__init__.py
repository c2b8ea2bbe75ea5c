"""What there is to race: pairs, published models, and what they take."""
