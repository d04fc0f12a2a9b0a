"""The role `export`: fuses base and adapter into one model, and checks that it answers alike."""
