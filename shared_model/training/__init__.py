"""Training on one hospital's patients: epochs, Newton sums, losses, and the changes that leave."""
