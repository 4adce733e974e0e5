# From one JetStream stream to another: the stream that messages go to drops what comes twice after a failure, so that
# each has its effect once.

site "orders" {}

listen {
  admin = "127.0.0.1:3570"
}

broker "nats" "bus" {
  url = "nats://127.0.0.1:4222"
}

graph "main" {
  file = "graphs/orders.fbp"
}

participant "shop" {
  component = "demo/Shop"
  broker    = broker.nats.bus

  outport "ordered" {
    address = "shop.ordered"
    type    = "object"
    stream  = "SHOP"

    create_stream {
      max_age = "168h"
    }
  }
}

participant "warehouse" {
  component = "demo/Warehouse"
  broker    = broker.nats.bus

  inport "in" {
    address = "warehouse.in"
    type    = "object"
    stream  = "WAREHOUSE"

    create_stream {
      retention  = "workqueue"
      discard    = "new"
      max_bytes  = 1073741824
      duplicates = "1h"
    }
  }
}

edge "shop.ordered" "warehouse.in" {
  require = "effect-once"
}
