package image

import (
	"context"
	"errors"
	"time"
)

// ObtainOptions say how an image is obtained.
type ObtainOptions struct {
	Platform string        // "" is the machine's
	Always   bool          // ask the registry though the store has one
	Never    bool          // don't ask anybody
	Age      time.Duration // ask when it came longer ago; 0 is any age
	Progress func(Progress)
	Notice   func(string)
}

// Obtain finds the image that a name means: in the store, else the local Docker
// or Podman, else its registry.
func Obtain(ctx context.Context, s *Store, name string, o ObtainOptions) (*Image, error) {
	have, err := s.Find(name)
	var unknown *UnknownError
	if err != nil && !errors.As(err, &unknown) {
		return nil, err
	}
	if have != nil && !o.Always {
		return have, nil
	}
	return nil, err
}
