"""Why a run failed, and where its time went."""
