package backbone

// follower
type follower struct{}
