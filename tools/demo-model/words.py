"""Word lists and phrase templates of the synthetic world."""
import os, random
HERE = os.path.dirname(os.path.abspath(__file__))
STORES = """Fresh Mart|Green Grocer|Corner Cafe|City Market|Book Haven|Star Hardware|Sunny Bakery|River Deli|Ocean Foods|Metro Pharmacy|
Golden Bean Coffee|Happy Pets|Tech World|Garden Center|Family Store|Daily Needs|Blue Moon Diner|Pizza Palace|Urban Outfit|Sports Hub|
Toy Kingdom|Paper & Ink|Quick Stop|Super Saver|Village Market|Mountain Gear|Lakeside Grill|Old Town Bakery|Noodle House|Burger Barn|
Fruit Stand|Spice Garden|Candy Corner|Tea House|Fish Market|Home Depot Plus|Office Point|Music Box|Flower Shop|Bike Works|
Red Apple Market|Silver Spoon|Harbor Coffee|Maple Street Books|Union Station Kiosk|Pine Tree Store|Royal Foods|Taco Town""".replace("\n", "").split("|")
ITEMS = """milk|bread|eggs|butter|cheese|apples|bananas|oranges|grapes|tomatoes|potatoes|onions|carrots|lettuce|chicken|beef|fish|rice|pasta|cereal|
coffee|tea|sugar|salt|flour|yogurt|juice|water|soda|cookies|chips|candy|chocolate|ice cream|pizza|soup|beans|nuts|honey|jam|
soap|shampoo|toothpaste|tissues|paper towels|batteries|light bulb|notebook|pen|pencil|eraser|stapler|tape|glue|scissors|ruler|folder|marker|envelope|stamps|
hammer|nails|screws|paint|brush|rope|bucket|gloves|wrench|drill|saw|hinge|lamp|chair|pillow|blanket|towel|mug|plate|bowl|spoon|fork|knife|
latte|espresso|mocha|muffin|bagel|donut|croissant|sandwich|salad|burger|fries|hot dog|taco|burrito|noodles|dumplings|steak|shrimp|
shirt|socks|hat|scarf|belt|shoes|jacket|jeans|dog food|cat food|bird seed|ball|puzzle|kite|doll|robot|book|magazine|newspaper|map|
tulips|roses|seeds|soil|flower pot|bike lock|helmet|tire|pump|bell|green tea|black tea|orange juice|apple pie|whole milk|brown rice|olive oil|peanut butter|corn|
cucumber|spinach|garlic|ginger|lemon|lime|peach|pear|plum|melon|mango|pineapple|berries|cream|ham|bacon|turkey|sausage|tofu|vinegar|mustard|ketchup|pepper|cake|
aspirin|vitamins|bandage|lotion|razor|comb|mirror|candle|matches|lighter|umbrella|wallet|backpack|bottle|cable|charger|mouse|keyboard|headphones|speaker|camera|phone case""".replace("\n", "").split("|")
PAY = ["CASH", "VISA", "MASTERCARD", "DEBIT CARD", "AMEX", "GIFT CARD"]
STREETS = "Main St|Oak Ave|Park Rd|Elm St|Lake Dr|Hill Rd|River St|King St|High St|Market Sq|Station Rd|Mill Ln".split("|")
CITIES = "Paris|London|Berlin|Madrid|Rome|Vienna|Oslo|Lisbon|Athens|Dublin|Prague|Warsaw|Tokyo|Kyoto|Seoul|Delhi|Cairo|Lima|Boston|Chicago|Denver|Seattle|Austin|Miami|Toronto|Sydney|Zurich|Geneva|Milan|Munich|Hamburg|Nairobi|Bangkok|Havana|Quito|Dallas|Atlanta|Helsinki|Stockholm|Copenhagen".split("|")
NAMES = "Alice|Bob|Carol|David|Emma|Frank|Grace|Henry|Iris|Jack|Kate|Leo|Mia|Nick|Olga|Paul|Rosa|Sam|Tina|Victor|Wendy|Anna|Ben|Clara|Daniel".split("|")
SIGNS = """EXIT|NO PARKING|STOP|OPEN|CLOSED|SALE|FOR RENT|FOR SALE|PUSH|PULL|NO SMOKING|CAUTION|DANGER|WET FLOOR|ONE WAY|YIELD|BUS STOP|TAXI|HOTEL|
CAFE|BAKERY|LIBRARY|SCHOOL ZONE|KEEP OUT|PRIVATE|STAFF ONLY|WELCOME|INFORMATION|TICKETS|RESTROOMS|ELEVATOR|STAIRS|EMERGENCY EXIT|NO ENTRY|
SPEED LIMIT 30|SPEED LIMIT 55|ROOM 101|GATE 12|PLATFORM 3|FLOOR 2|MEN|WOMEN|RECYCLE|QUIET PLEASE|HAND WASH ONLY|FRESH COFFEE|FREE WIFI|
HELP WANTED|BEWARE OF DOG|OUT OF ORDER|PAY HERE|CHECK IN|LOST AND FOUND|FIRST AID|FIRE EXIT|NO SWIMMING|BIKE LANE|ROAD WORK AHEAD""".replace("\n", "").split("|")
COLORS = {"red": (214, 39, 40), "green": (44, 160, 44), "blue": (31, 87, 200), "yellow": (240, 214, 30), "orange": (255, 127, 14),
          "purple": (130, 60, 180), "pink": (247, 130, 190), "brown": (125, 75, 45), "black": (20, 20, 20), "gray": (128, 128, 128)}
SHAPES = ["circle", "square", "triangle", "star", "rectangle", "diamond", "cross"]
COMMON = """the a is it to of and in on at for with my your we you they this that time day night morning evening home work school train bus car bike
red green blue yellow black white big small old new good bad hot cold open close turn left right up down stop go come play call send buy make take
light music door window kitchen bedroom garden street river mountain city country house table chair book paper phone water coffee bread milk
mother father sister brother friend doctor teacher dog cat bird fish horse apple orange lemon sugar rain snow sun wind moon star summer winter spring
today tomorrow yesterday now later soon never always please thank hello goodbye yes no maybe one two three four five six seven eight nine ten
monday tuesday wednesday thursday friday saturday sunday january march april june july august october
happy sad quick slow tall short long round heavy clean dirty quiet loud early late first last next""".split()
DIG = "zero one two three four five six seven eight nine".split()
def load_dict():
    """24,000 words of 3 to 9 plain lower-case letters from Debian's wamerican (SCOWL), the same ones every time."""
    with open(os.environ.get("WORDS", "/usr/share/dict/american-english")) as f:
        words = sorted({w for w in f.read().split() if w.isascii() and w.isalpha() and w.islower() and 3 <= len(w) <= 9})
    return random.Random(0).sample(words, 24000)
