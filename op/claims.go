package op

// Claimer is an Op that makes a thing of which there can be only one.
type Claimer interface {
	// Claims names the thing for the reader of a refusal: "link br-lab".
	Claims() string
}

// Claims returns what the ops of a plan claim.
func Claims(plan Plan) []string {
	var claims []string
	for _, step := range plan {
		if claimer, ok := step.Op.(Claimer); ok {
			claims = append(claims, claimer.Claims())
		}
	}
	return claims
}

// Claims the name of the bridge.
func (o AddBridge) Claims() string { return "link " + o.Name }
